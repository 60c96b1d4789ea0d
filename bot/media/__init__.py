"""Pictures in, clips out: decoding and encoding, always off the event loop."""
