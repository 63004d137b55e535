"""`ssl-backbones correspond` as a script, for a copy of the repository."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    # These scripts are no modules: an installed package may bear the name of one, as Hugging Face's evaluate does.
    sys.path = [place for place in sys.path if Path(place) != Path(__file__).parent]
    from ssl_backbones.commands import run

    sys.exit(run("correspond"))
