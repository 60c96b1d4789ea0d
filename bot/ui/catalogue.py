"""What Discord's own menus say of the commands: names, descriptions, choices.

Sentences about jobs stand in `cards`, private answers in `answer`, modals in `forms`, buttons in `controls`;
a refusal stands beside the rule that it tells.
"""

COMMANDS = {
    "animate": "Bring a picture to life as a short video",
    "settings": "Decide where, for whom and at what cost clips are made in this server",
    "pause": "Start no new clips; those being made are finished",
    "resume": "Start new clips again",
    "block": "Let nothing more be made for somebody, for a while or until you unblock them",
    "unblock": "Let somebody have clips made again",
    "blocked": "Who may not have clips made, why and until when",
}
OPTIONS = {
    "everywhere": "In all servers; only for this bot's owner",
    "blocked_member": "Whom",
    "reason": "Why; they read it",
    "duration": "How long; until you unblock them when left out",
}
ANIMATE_MENU = "Animate this picture"
REPORT_MENU = "Report this clip"

# How sentences about pictures begin.
PICTURE = "The picture"
END_PICTURE = "The end picture"


def animate_options(default_model: str) -> dict[str, str]:
    """The descriptions of the options of `/animate`."""
    return {
        "prompt": "What should happen in the clip, for example: camera slowly pulls out",
        "picture": "The picture to bring to life: PNG, JPEG, WebP, GIF or HEIC",
        "model": f"Which model makes it; {default_model} unless this server says otherwise",
        "seconds": "How long the clip is",
        "quality": "How fine the picture is; finer costs more",
        "end_picture": "The picture that the clip ends on",
        "negative": "What should not be in the clip",
        "strength": "How closely to follow the prompt",
        "ratio": "The shape of the clip, where it is not the picture's",
        "camera": "How the camera moves",
        "loop": "Whether the clip ends as it begins",
        "sound": "Whether the clip has sound; it may cost more",
    }


def choice(value: int | str) -> str:
    """How one value of an option is called."""
    return f"{value} seconds" if isinstance(value, int) else value
