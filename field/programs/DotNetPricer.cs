using System;
using System.IO;

// A pricer for .NET: counts the lines of its input.
public static class DotNetPricer
{
    public static int Main(string[] words)
    {
        if (words.Length == 0) return 2;
        int lines = File.ReadAllLines(words[0]).Length;
        File.WriteAllText("prices.csv", "lines," + lines + "\n");
        Console.WriteLine("counted " + lines);
        return 0;
    }
}
