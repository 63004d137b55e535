"""Mine the pairs that FLAGS trains on: python training/mine_pairs.py MODEL --data ... --out pairs.parquet"""

from ssl_backbones.commands.mine_pairs import main

if __name__ == "__main__":
    main()
