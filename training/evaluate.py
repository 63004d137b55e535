"""What a backbone is worth: accelerate launch training/evaluate.py PROTOCOL MODEL --data ... --out ..."""

from ssl_backbones.commands.evaluate import main

if __name__ == "__main__":
    main()
