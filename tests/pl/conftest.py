from fixtures_of_verbs import *  # noqa: F403
