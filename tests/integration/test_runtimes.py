"""Programs of runtimes that reserve far more than they use run under the default limits: .NET, Java and Go.

Each test is skipped, with the missing program as its reason, where its runtime is not installed. The .NET host is found
as `dotnet` in PATH, or at the path in the variable RAYGRID_TEST_DOTNET.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.http import unzip
from tests.support.small_grid import SmallGrid

JAVA = """
import java.nio.file.*;
public class Pricer {
    public static void main(String[] a) throws Exception {
        System.out.print("priced " + Files.readAllLines(Path.of(a[0])).size());
        Files.writeString(Path.of("out.csv"), "id,price\\n");
    }
}
"""
CSHARP = """
using System; using System.IO;
public static class Pricer {
    public static int Main(string[] args) {
        Console.Write("priced " + File.ReadAllLines(args[0]).Length);
        File.WriteAllText("out.csv", "id,price\\n");
        return 0;
    }
}
"""
GO = """
package main

import ("fmt"; "os"; "strings")

func main() {
    text, _ := os.ReadFile(os.Args[1])
    fmt.Print("priced ", strings.Count(string(text), "\\n"))
    os.WriteFile("out.csv", []byte("id,price\\n"), 0644)
}
"""


def needed(program: str, package: str) -> str:
    """Where a program is; the test is skipped where it is nowhere."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed here (Debian: apt-get install {package})")
    return found


def built(*command: str | Path) -> None:
    subprocess.run(command, check=True, timeout=300, capture_output=True)


async def assert_prices(directory: Path, command: list[str], **settings: object) -> None:
    """A pricer with the default limits prices a file of two lines."""
    async with SmallGrid(directory, pricers={"priced": {"command": command, **settings}}) as grid:
        answer = await grid.submit("job", "one\ntwo\n", pricer="priced")
        assert answer.status_code == 200, answer.text
        assert unzip(answer)["stdout.txt"] == b"priced 2"
        assert unzip(answer)["out.csv"] == b"id,price\n"


@pytest.mark.parametrize("options", [["-XX:+UseZGC", "-Xms2g"], ["-XX:+UseG1GC"], []], ids=["zgc", "g1", "default"])
async def test_java_runs(tmp_path: Path, options: list[str]) -> None:
    """The memory that its garbage collector maps is no file of the job."""
    java, javac = needed("java", "default-jre-headless"), shutil.which("javac")
    source = tmp_path / "Pricer.java"
    source.write_text(JAVA, encoding="utf-8")
    if javac is not None:
        built(javac, "-d", tmp_path, source)
        await assert_prices(tmp_path / "grid", [java, *options, "-cp", str(tmp_path), "Pricer", "{input}"])
    elif subprocess.run([java, "--list-modules"], capture_output=True, check=True).stdout.find(b"jdk.compiler") < 0:
        pytest.skip("neither javac nor the module jdk.compiler is installed here (Debian: apt-get install default-jdk)")
    else:
        await assert_prices(tmp_path / "grid", [java, *options, str(source), "{input}"])


async def test_dotnet_runs(tmp_path: Path) -> None:
    """Since .NET 7 a memory file of 2 TB is made at the start; it is no output."""
    dotnet = os.environ.get("RAYGRID_TEST_DOTNET") or needed("dotnet", "dotnet-runtime-8.0, from Microsoft")
    compiler = needed("mcs", "mono-mcs")
    (tmp_path / "Pricer.cs").write_text(CSHARP, encoding="utf-8")
    built(compiler, f"-out:{tmp_path}/Pricer.dll", tmp_path / "Pricer.cs")
    framework = {"name": "Microsoft.NETCore.App", "version": "8.0.0"}
    config = {"runtimeOptions": {"tfm": "net8.0", "rollForward": "Major", "framework": framework}}
    (tmp_path / "Pricer.runtimeconfig.json").write_text(json.dumps(config), encoding="utf-8")
    env = {"DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"}
    await assert_prices(tmp_path / "grid", [dotnet, "exec", f"{tmp_path}/Pricer.dll", "{input}"], env=env)


async def test_go_runs(tmp_path: Path) -> None:
    """Go reserves addresses only."""
    go = needed("go", "golang-go")
    (tmp_path / "pricer.go").write_text(GO, encoding="utf-8")
    environment = {**os.environ, "GOCACHE": str(tmp_path / "cache"), "GO111MODULE": "off"}
    build = [go, "build", "-o", str(tmp_path / "pricer"), str(tmp_path / "pricer.go")]
    subprocess.run(build, check=True, timeout=300, env=environment, capture_output=True)
    await assert_prices(tmp_path / "grid", [str(tmp_path / "pricer"), "{input}"])
