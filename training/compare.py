"""Compare recipes: python training/compare.py GRID.toml [--data ...] [--out ...] [--seeds 0 1 2]"""

from ssl_backbones.commands.compare import main

if __name__ == "__main__":
    main()
