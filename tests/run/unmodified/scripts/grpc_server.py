"""A gRPC server and its client in one process, over a Unix socket."""

import tempfile
from concurrent import futures

import grpc
from witness import visit


def echo(request, _context):
    visit()
    return request


class Echo(grpc.GenericRpcHandler):
    def service(self, _details):
        return grpc.unary_unary_rpc_method_handler(echo)


with tempfile.TemporaryDirectory() as folder:
    address = f"unix:{folder}/socket"
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(Echo(),))
    server.add_insecure_port(address)
    server.start()
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/echo/Echo")
        answers = [call(str(number).encode(), timeout=20) for number in range(100)]
    server.stop(None).wait()
print(answers[-1], len(answers))
