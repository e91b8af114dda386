from vgcompile.cli import main

raise SystemExit(main())
