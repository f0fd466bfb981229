from tests.conftest import *
from tests.test_supervision import *
def test_a(bench):
    client = caller(bench, "chain_a", "chain", 3)
    others = {name: bench.pid(name) for name in ("chain_a", "chain_b", "chain_c")}
    print(others)
    with bench.frozen("chain_c"):
        client.go()
        client.waits()
        g=bench.kill("chain_a")
        try: print(client.result())
        except AssertionError as e: print(e)
    bench.recovered("chain_a",g)
    print({name: bench.pid(name) for name in ("chain_a", "chain_b", "chain_c")})
    print(bench.log())
