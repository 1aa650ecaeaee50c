"""What check_docker.py does: a Dockerfile is read, checked, and carried out without a Docker engine."""
