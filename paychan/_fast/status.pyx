"""The statuses of the compiled path; status.pxd declares them, and Cython makes them a Python enum here."""
