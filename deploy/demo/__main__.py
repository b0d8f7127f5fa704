"""`python -m deploy.demo`: tell the story of the refund desk."""

import sys

from deploy.demo.demo import main

sys.exit(main())
