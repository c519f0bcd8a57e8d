"""Job queues from npm, installed beside the server for the time of a run."""

import os
import shutil
import subprocess

from cluster import HERE, PORT, USER, Snapshot

# They need a newer node than Debian has.
PACKAGES = ("graphile-worker@0.18.0", "pg-boss@12.38.0", "pg@8.16.3", "node@24.21.0")
NAMES = {"graphile": "graphile-worker, 16 at a time", "graphile-batched": "graphile-worker, batched",
         "pg-boss": "pg-boss, batches of 100"}


class Peers:
    def __init__(self, server):
        self.server = server
        self.directory = server.directory + "/peers"
        self.node = self.directory + "/node_modules/.bin/node"

    def install(self):
        """Install them; the reason why they cannot be used, or nothing."""
        npm = shutil.which("npm")
        if npm is None:
            return "npm not found"
        os.mkdir(self.directory)
        try:
            done = subprocess.run([npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", self.directory,
                                   "--cache", self.directory + "/cache", *PACKAGES],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            return "npm did not install them in 300 s"
        if done.returncode != 0:
            return "npm could not install them"
        shutil.copy(HERE + "/peers.mjs", self.directory)
        return ""

    def drain(self, system, count, is_held):
        """No-op jobs per second, in a database of its own; perhaps a snapshot of it is held."""
        admin = self.server.connect("postgres")
        admin.ask("CREATE DATABASE peer")
        try:
            environment = dict(os.environ, PGHOST=self.server.directory, PGPORT=str(PORT), PGUSER=USER,
                               PGDATABASE="peer", NODE_ENV="production")
            with Snapshot(self.server, "peer", is_held):
                done = subprocess.run([self.node, self.directory + "/peers.mjs", system, str(count)],
                                      stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                                      env=environment)
            if done.returncode != 0:
                raise RuntimeError("%s: %s" % (system, done.stderr[-2000:]))
            return float(done.stdout.split()[-1])
        finally:
            admin.ask("DROP DATABASE peer WITH (FORCE)")
            admin.close()
