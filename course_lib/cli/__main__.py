"""`python -m course_lib.cli`: the `course` command where no script of that name is on the path."""

import sys

from course_lib.cli import main

sys.exit(main())
