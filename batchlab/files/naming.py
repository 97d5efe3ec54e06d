"""Names of files that stand for a person's text."""


def file_name(text: str, most_bytes: int = 100) -> str:
    """Return a file's name like the text: letters, digits, `-`, `_` and `.`, at most so many bytes. Two texts may have the same."""
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in text).encode()[:most_bytes].decode(errors="ignore")
