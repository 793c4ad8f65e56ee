/* Takes as many megabytes of memory as the first line of its input asks for, a little at a time, and keeps them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **words) {
    int megabytes = 0;
    FILE *input = count > 1 ? fopen(words[1], "r") : NULL;
    if (input == NULL || fscanf(input, "%d", &megabytes) != 1 || megabytes > 6000) return 3;
    for (int i = 0; i < megabytes; i++) {
        char *piece = malloc(1 << 20);
        if (piece == NULL) return 4;
        memset(piece, 1, 1 << 20);
        if (i % 20 == 0) usleep(20000);
    }
    sleep(8);
    printf("priced with %d MB\n", megabytes);
    return 0;
}
