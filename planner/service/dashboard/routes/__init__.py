"""The routes of the pages. Whatever changes something calls the function behind the REST route."""
