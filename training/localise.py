"""Measure maps by where the objects are: python training/localise.py MODEL ... --data photos.parquet --out FOLDER"""

from ssl_backbones.commands.localise import main

if __name__ == "__main__":
    main()
