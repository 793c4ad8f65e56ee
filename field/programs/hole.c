/* Makes a file of 4 GB that is one hole, removes it, and writes a small one: on the disk it never used more than that. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void) {
    int hole = open("hole", O_CREAT | O_RDWR, 0600), memory = memfd_create("heap", 0);
    if (hole < 0 || ftruncate(hole, 4LL << 30) != 0) return 3;
    if (memory < 0 || ftruncate(memory, 1LL << 40) != 0) return 4;
    unlink("hole");
    FILE *prices = fopen("prices.csv", "w");
    fprintf(prices, "priced\n");
    fclose(prices);
    return 0;
}
