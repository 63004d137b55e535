"""Look at what a network has learned: python training/visualize.py MODEL --images ... --out gallery/"""

from ssl_backbones.commands.visualize import main

if __name__ == "__main__":
    main()
