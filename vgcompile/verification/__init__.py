"""Is a compiled gradient right, on somebody's own data? Differences in float64 say so, node by node and end to end."""

from vgcompile.verification.pipeline import verify as verify
from vgcompile.verification.result import Check as Check
from vgcompile.verification.result import Verification as Verification
