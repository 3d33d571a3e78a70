"""Run command.py."""
from twba_nets.system import interrupts

if __name__ == "__main__":
    interrupts.exit_at_once()  # the imports below take seconds

from twba_chip.report.command import main

if __name__ == "__main__":
    main()
