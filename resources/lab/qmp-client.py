# A program that drives a guest by QEMU's library for QMP: stops it, lets it go on, brings a device and takes it away, ends it.
# Started with the path of a socket, and with the device as arguments of device_add in JSON.

import asyncio
import json
import sys

from qemu.qmp import ExecuteError, QMPClient


async def drive(qmp, device):
    assert (await qmp.execute("query-status"))["running"]
    with qmp.listener(("STOP", "RESUME")) as events:
        # Both are sent before either is answered.
        await asyncio.gather(qmp.execute("stop"), qmp.execute("query-cpus-fast"))
        assert (await events.get())["event"] == "STOP"
        assert (await qmp.execute("query-status"))["status"] == "paused"
        await qmp.execute("cont")
        assert (await events.get())["event"] == "RESUME"
    for command, kind in [("no-such-command", "CommandNotFound"), ("device_del", "GenericError")]:
        try:
            await qmp.execute(command)
            raise AssertionError(command)
        except ExecuteError as error:
            assert error.error_class == kind, error
    with qmp.listener("DEVICE_DELETED") as events:
        await qmp.execute("device_add", device)
        # The guest switches its slot on before it is seen.
        while device["id"] not in await ids(qmp):
            await asyncio.sleep(0.5)
        print("the device is there", flush=True)
        await qmp.execute("device_del", {"id": device["id"]})
        async for event in events:
            if event["data"].get("device") == device["id"]:
                break
    print("the device is gone", flush=True)
    with qmp.listener("SHUTDOWN") as events:
        await qmp.execute("quit")
        reason = (await events.get())["data"]["reason"]
        assert reason == "host-qmp-quit", reason


async def ids(qmp):
    return [function["qdev_id"] for bus in await qmp.execute("query-pci") for function in functions(bus)]


def functions(bus):
    for function in bus["devices"]:
        yield function
        yield from functions(function.get("pci_bridge", {"devices": []}))


async def main(path, device):
    qmp = QMPClient("guest")
    await qmp.connect(path)
    try:
        await drive(qmp, json.loads(device))
    finally:
        try:
            await qmp.disconnect()
        except EOFError:
            # The guest's end has closed the line already.
            pass
    print("all is done", flush=True)


asyncio.run(main(*sys.argv[1:]))
