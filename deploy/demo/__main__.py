"""`python -m deploy.demo`: tell the story of the refund desk."""

import os
import sys

# gRPC's own log of refused handshakes would stand in the middle of the story; it reads this when imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from deploy.demo.demo import main

sys.exit(main())
