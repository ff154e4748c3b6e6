"""A real server and real clients, as processes or in containers.

stack.py            the interface of a stack: start a server, start clients, end all of them
process_stack.py    processes on this machine
docker_stack.py     containers, through the Docker SDK
engine.py           the Docker engine, the images, docker compose
programs.py         a running client or server: type, expect, end
transcript.py       the lines that a program printed, and waiting for one
raw_guest.py        a guest of the wire format register that sends raw bytes
choice.py           the stacks that a test run uses
"""
