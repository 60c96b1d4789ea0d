"""What people see in Discord."""
