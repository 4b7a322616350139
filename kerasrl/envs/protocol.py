"""What environments may say, and the error if they say anything else."""


class EnvProtocolError(ValueError):
    """An environment broke gymnasium's protocol.

    The message names the environment, the call and what was wrong with it. Exceptions
    that an environment raises itself are passed on as they are, with a note that says
    which environment raised them.
    """
