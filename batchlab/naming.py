"""Names of files that stand for a person's text."""


def file_name(text: str) -> str:
    """Return a file's name like the text: letters, digits, `-`, `_` and `.`, at most 100 bytes. Two texts may have the same."""
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in text).encode()[:100].decode(errors="ignore")
