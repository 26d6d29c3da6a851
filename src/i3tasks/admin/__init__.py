"""The pages in Django's admin. Importing this package registers them."""

from . import executions as executions
from . import groups as groups
from . import schedules as schedules
from . import tries as tries
from . import workers as workers
