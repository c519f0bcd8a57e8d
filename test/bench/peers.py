"""Peers from npm, installed beside the server for the time of a run."""

import os
import shutil
import subprocess

from cluster import HERE, PORT, USER, Snapshot

# They need a newer node than Debian has.
NODE = "node@24.21.0"
PACKAGES = {
    "peers": ("graphile-worker@0.18.0", "pg-boss@12.38.0", "pg@8.16.3", NODE),
    "langgraph": ("@langchain/langgraph-checkpoint-postgres@1.0.5", "@langchain/langgraph@1.3.7",
                  "@langchain/core@1.4.0", "pg@8.16.3", NODE),
}
NAMES = {"graphile": "graphile-worker, 16 at a time", "graphile-batched": "graphile-worker, batched",
         "pg-boss": "pg-boss, batches of 100"}


class Peers:
    """A script of this directory, NAME.mjs, and the packages that it needs."""

    def __init__(self, server, name="peers"):
        self.server = server
        self.name = name
        self.directory = "%s/%s" % (server.directory, name)
        self.node = self.directory + "/node_modules/.bin/node"

    def install(self):
        """Install them; the reason why they cannot be used, or nothing."""
        npm = shutil.which("npm")
        if npm is None:
            return "npm not found"
        os.mkdir(self.directory)
        try:
            done = subprocess.run([npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", self.directory,
                                   "--cache", self.directory + "/cache", *PACKAGES[self.name]],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            return "npm did not install them in 300 s"
        if done.returncode != 0:
            return "npm could not install them"
        shutil.copy("%s/%s.mjs" % (HERE, self.name), self.directory)
        return ""

    def run(self, database, *arguments, timeout=120):
        """Run the script in a database; what it prints."""
        environment = dict(os.environ, PGHOST=self.server.directory, PGPORT=str(PORT), PGUSER=USER,
                           PGDATABASE=database, NODE_ENV="production")
        done = subprocess.run([self.node, "%s/%s.mjs" % (self.directory, self.name), *arguments],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
                              env=environment)
        if done.returncode != 0:
            raise RuntimeError("%s: %s" % (" ".join(arguments), done.stderr[-2000:]))
        return done.stdout

    def drain(self, system, count, is_held):
        """No-op jobs per second, in a database of its own; perhaps a snapshot of it is held."""
        admin = self.server.connect("postgres")
        admin.ask("CREATE DATABASE peer")
        try:
            with Snapshot(self.server, "peer", is_held):
                return float(self.run("peer", system, str(count)).split()[-1])
        finally:
            admin.ask("DROP DATABASE peer WITH (FORCE)")
            admin.close()
