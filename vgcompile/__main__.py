"""``python -m vgcompile`` is the command ``vgcompile``."""

from vgcompile.cli import main

raise SystemExit(main())
