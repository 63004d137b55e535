"""How well a backbone learns to find objects: accelerate launch training/detect.py MODEL --data ... --out ..."""

from ssl_backbones.commands.detect import main

if __name__ == "__main__":
    main()
