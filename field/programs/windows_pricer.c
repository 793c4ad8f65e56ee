/* A pricer for Windows: the first line of its input is a number of milliseconds to sleep; it counts the other lines. */
#include <stdio.h>
#include <windows.h>

int main(int count, char **words) {
    int byte, lines = 0, sleep_ms = 0;
    FILE *input = count > 1 ? fopen(words[1], "rb") : NULL;
    if (input == NULL) {
        fprintf(stderr, "cannot read the input\n");
        return 3;
    }
    if (fscanf(input, "%d", &sleep_ms) != 1) return 4;
    while ((byte = fgetc(input)) != EOF) lines += byte == '\n';
    fclose(input);
    Sleep(sleep_ms);
    FILE *prices = fopen("prices.csv", "w");
    fprintf(prices, "lines,%d\n", lines);
    fclose(prices);
    printf("slept %d counted %d\n", sleep_ms, lines);
    return 0;
}
