"""Look at mined pairs: python training/draw_pairs.py pairs.parquet --data ... --out pairs.png"""

from ssl_backbones.commands.draw_pairs import main

if __name__ == "__main__":
    main()
