"""`python -m app ...` is `collector ...`: for places where the project is not installed, such as Heroku."""

from app.cli import main

main()
