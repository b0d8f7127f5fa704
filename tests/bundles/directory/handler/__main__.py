"""Serve one call of directory.v1.Directory."""

from __future__ import annotations

from directory.v1 import directory_pb2

from toolcrib.handler import Context, Failure, Handler, Login

from .speech import Conversation, LdapRefused

handler = Handler()


def serve(credential):
    """Return the tool that logs in with a credential and says as whom."""

    def who_am_i(_request: directory_pb2.WhoAmIRequest, context: Context) -> directory_pb2.WhoAmIResponse:
        login = context.credential(credential, Login)
        try:
            with Conversation.through_socket(context.targets["staff"].socket_path) as conversation:
                conversation.bind(login.username, login.password)
                return directory_pb2.WhoAmIResponse(name=conversation.who_am_i())
        except (LdapRefused, OSError) as error:
            text = f"the directory does not let us in: {type(error).__name__}"
            raise Failure("DIRECTORY_CLOSED", text, effect="none") from error

    return who_am_i


handler.tool("directory.v1.Directory/WhoAmI", directory_pb2.WhoAmIRequest)(serve("guest"))
handler.tool("directory.v1.Directory/WhoIsReporter", directory_pb2.WhoAmIRequest)(serve("reporter"))

if __name__ == "__main__":
    handler.run()
