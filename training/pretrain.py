"""Pretrain a backbone without labels: accelerate launch training/pretrain.py"""

from ssl_backbones.commands.pretrain import main

if __name__ == "__main__":
    main()
