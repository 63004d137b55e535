"""How well a backbone learns to tell every pixel's class: accelerate launch training/segment.py MODEL --data ..."""

from ssl_backbones.commands.segment import main

if __name__ == "__main__":
    main()
