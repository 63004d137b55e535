"""Publish what a run left: python training/publish.py RUN --repo org/name [--evaluation FOLDER ...] [--yes]"""

from ssl_backbones.commands.publish import main

if __name__ == "__main__":
    main()
