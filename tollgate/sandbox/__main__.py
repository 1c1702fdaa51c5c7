"""`python -m tollgate.sandbox`: the sandbox provider as a process of its own."""

from tollgate.sandbox.server import main

main()
