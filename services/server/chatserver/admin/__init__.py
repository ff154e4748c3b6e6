"""Administrators' commands: ``chatserver admin COMMAND``, with the server running or not.

Theory of operation
-------------------

The program reads the data folder itself, and changes it through the running server, or in its place if none runs.

* **Lists** (``commands.py``, ``store/reports.py``) and the copies and checks of the files (``store/backup.py``,
  ``store/check.py``) run in this process, on a connection that only reads. In WAL mode it sees what is committed, and
  delays no commit. It has no effect on the server.
* **Changes** (``changes.py``) are functions of a request and a *target*, which has a database to read and a journal.
  There are two targets (``target.py``). RunningServer is in the server: the request comes over a socket. StoppedServer
  is in this process: it takes the locks of the folder as a server does, and opens a journal of its own. The same
  function runs in both, and every change is an entry of the journal, so the result is the same. In the server, the
  subscribers of the journal tell the members.

A request is a struct of ``requests.py``, made from the command line. Passwords are read from the terminal or from
standard input, and the request has their hashes. So no secret is in a process list or in the socket.

The socket ``admin.sock`` (``net/admin_socket.py``) is a stream in the data folder, with mode 0600. A request is a line
of JSON, at most 64 KiB, and the answer is another one. One thread of the server serves one connection after the other,
each within time limits; the next one waits. The server answers root and its own user only: it reads the credentials
that the kernel has of the peer. The program follows no symbolic link: neither the folder nor its files may be one.
Otherwise a user who can write to the folder could redirect root to other files.

``open_target`` decides in this order. If the socket accepts, a server runs. If not, and the locks are free, none runs.
Otherwise another command has the locks for a moment, or a server starts or stops: it tries again, for five seconds.

An error is one sentence. Exit codes: 0 done; 1 refused or failed, and nothing changed; 2 the command, a value or a
setting is wrong.
"""
