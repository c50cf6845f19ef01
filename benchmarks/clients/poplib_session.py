# One session with poplib, as its documentation shows it. The job comes as JSON in the only argument; the result,
# with times in seconds, goes to standard output as JSON.
import json
import poplib
import ssl
import sys
import time


def memory(what):
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(what + ":"):
                return int(line.split()[1]) * 1024
    return 0


def fetch(box, count):
    octets = 0
    for i in range(count):
        octets += box.retr(i + 1)[2]
    return octets


def work(box, job):
    count = job["Count"]
    if job["Work"] == "uidl":
        return len(box.uidl()[1]), 0
    if job["Work"] == "large":
        return count, fetch(box, count)
    if job["Work"] == "dele":
        for i in range(count):
            box.dele(i + 1)
        return count, 0
    box.list()
    count = len(box.uidl()[1])
    return count, fetch(box, count)


def main():
    job = json.loads(sys.argv[1])
    host, port = job["Addr"].rsplit(":", 1)
    base = memory("VmRSS")
    began = time.monotonic()
    if job["TLS"]:
        context = ssl.create_default_context(cafile=job["CAFile"])
        box = poplib.POP3_SSL(host, int(port), context=context)
    else:
        box = poplib.POP3(host, int(port))
    box.user(job["User"])
    box.pass_(job["Password"])
    logged_in = time.monotonic() - began
    messages, octets = work(box, job)
    done = time.monotonic() - began
    box.quit()
    total = time.monotonic() - began
    print(json.dumps({
        "LoggedIn": int(logged_in * 1e9), "Done": int(done * 1e9), "Total": int(total * 1e9),
        "Messages": messages, "Octets": octets, "Base": base, "Peak": memory("VmHWM"),
    }))


main()
