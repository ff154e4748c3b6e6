"""What the stories are told with: real clients and a real server, as processes or in containers.

stack.py            the interface of a stack: start a server, start clients, take everything down
process_stack.py    plain processes on this machine
docker_stack.py     containers, through the Docker SDK; compose.py the same with the repository's compose.yaml
actors.py           a client or a server that runs: type, expect, end
transcript.py       what was typed and shown, and waiting for it
choice.py           which stacks a session of the tests uses
"""
