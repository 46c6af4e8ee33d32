#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""browser.py MODULE: runs a WebAssembly program in Chromium without a window and prints what it wrote.

Fails where the program did not end with 0. The page has the few functions of WASI that it calls.
"""
import base64
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = """<!doctype html><meta charset="utf-8"><pre id="out"></pre><script>
const out = document.getElementById("out")
const bytes = Uint8Array.from(atob("MODULE"), c => c.charCodeAt(0))
let memory, code = 0
const end = {}
const wasi = {
  fd_write(fd, list, count, written) {
    const view = new DataView(memory.buffer)
    let sum = 0
    for (let i = 0; i < count; ++i) {
      const at = view.getUint32(list + 8 * i, true), size = view.getUint32(list + 8 * i + 4, true)
      out.textContent += new TextDecoder().decode(new Uint8Array(memory.buffer, at, size))
      sum += size
    }
    view.setUint32(written, sum, true)
    return 0
  },
  ...Object.fromEntries(["args_sizes_get", "environ_sizes_get"].map(name => [name, (count, size) => {
    new DataView(memory.buffer).setUint32(count, 0, true)
    new DataView(memory.buffer).setUint32(size, 0, true)
    return 0
  }])),
  args_get: () => 0,
  environ_get: () => 0,
  proc_exit(status) { code = status; throw end },
}
// Anything else is refused: "no such function" (ENOSYS).
const program = new WebAssembly.Module(bytes), calls = {}
for (const { name } of WebAssembly.Module.imports(program)) calls[name] = wasi[name] || (() => 52)
const run = new WebAssembly.Instance(program, { wasi_snapshot_preview1: calls })
memory = run.exports.memory
try { run.exports._start() } catch (e) { if (e !== end) { code = 1; out.textContent += e } }
out.textContent += "ended with " + code
</script>
"""

with tempfile.TemporaryDirectory() as folder:
    page = Path(folder, "page.html")
    page.write_text(PAGE.replace("MODULE", base64.b64encode(Path(sys.argv[1]).read_bytes()).decode()))
    # As root, which CI often is, Chromium has no sandbox.
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={folder}/profile", "--virtual-time-budget=20000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120).stdout
text = shown.partition('<pre id="out">')[2].partition("</pre>")[0]
print(text)
sys.exit(not text.endswith("ended with 0"))
