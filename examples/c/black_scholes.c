/* European options in closed form (Black and Scholes), as a pricer for raygrid: `black_scholes INPUT.csv`.
 *
 * Input: a CSV file with the header id,type,strike,spot,q,r,t,vol. Output: prices.csv in the job directory, with
 * id,price,delta,vega. Exit codes: 0 all rows priced, 1 output not writable, 2 bad input (each bad row on stderr).
 *
 * The same program is a cold and a warm pricer: if RAYGRID_WARM is set, it reads a JSON line for each job from stdin and
 * answers with one on stdout; see docs/guides/warm-pricers.md.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, UNWRITABLE = 1, BAD_INPUT = 2, PATH_SIZE = 4096, COLUMNS = 8 };

static const char HEADER[] = "id,type,strike,spot,q,r,t,vol";

typedef struct {
    double price, delta, vega;
} Valuation;

static double normal_cdf(double x) { return 0.5 * erfc(-x / sqrt(2.0)); }
static double normal_pdf(double x) { return exp(-0.5 * x * x) / sqrt(2.0 * acos(-1.0)); }

/* sign is 1 for a call and -1 for a put; rates are continuously compounded, t is in years. */
static Valuation black_scholes(int sign, double strike, double spot, double q, double r, double t, double vol) {
    double deviation = vol * sqrt(t);
    double d1 = (log(spot / strike) + (r - q) * t) / deviation + 0.5 * deviation;
    double d2 = d1 - deviation;
    double grown = exp(-q * t), discount = exp(-r * t);
    Valuation found = {
        sign * (spot * grown * normal_cdf(sign * d1) - strike * discount * normal_cdf(sign * d2)),
        sign * grown * normal_cdf(sign * d1),
        spot * grown * normal_pdf(d1) * sqrt(t),
    };
    return found;
}

/* Split a row in place at its commas; returns the number of cells, or -1 if there are too many. */
static int split(char *row, char *cells[], int most) {
    int count = 0;
    for (char *cell = row; cell != NULL;) {
        if (count == most) return -1;
        char *comma = strchr(cell, ',');
        if (comma != NULL) *comma++ = '\0';
        cells[count++] = cell;
        cell = comma;
    }
    return count;
}

static int number(const char *text, double *value) {
    char *end;
    *value = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*value);
}

/* Price one row; returns its problem, or NULL. */
static const char *price_row(char *row, FILE *prices) {
    char *cells[COLUMNS];
    double value[COLUMNS] = {0};
    if (split(row, cells, COLUMNS) != COLUMNS) return "not as many cells as columns";
    int is_call = strcmp(cells[1], "Call") == 0;
    if (!is_call && strcmp(cells[1], "Put") != 0) return "the type is neither Call nor Put";
    for (int column = 2; column < COLUMNS; column++)
        if (!number(cells[column], &value[column])) return "not a finite number";
    if (value[2] <= 0 || value[3] <= 0 || value[6] <= 0 || value[7] <= 0)
        return "strike, spot, t and vol must be above 0";
    Valuation found = black_scholes(is_call ? 1 : -1, value[2], value[3], value[4], value[5], value[6], value[7]);
    fprintf(prices, "%s,%.12g,%.12g,%.12g\n", cells[0], found.price, found.delta, found.vega);
    return NULL;
}

/* Price a file; returns the exit code. Problems are written to stderr, which the grid keeps with the job. */
static int price_file(const char *input, const char *output) {
    FILE *rows = fopen(input, "r");
    if (rows == NULL) {
        fprintf(stderr, "%s: cannot read: %s\n", input, strerror(errno));
        return BAD_INPUT;
    }
    FILE *prices = fopen(output, "w");
    if (prices == NULL) {
        fprintf(stderr, "%s: cannot write: %s\n", output, strerror(errno));
        fclose(rows);
        return UNWRITABLE;
    }
    fputs("id,price,delta,vega\n", prices);
    char *row = NULL;
    size_t room = 0;
    int line = 0, code = OK;
    while (getline(&row, &room, rows) != -1) {
        row[strcspn(row, "\r\n")] = '\0';
        const char *problem = ++line > 1 ? price_row(row, prices) : strcmp(row, HEADER) ? "not the expected header" : NULL;
        if (problem != NULL) {
            fprintf(stderr, "%s:%d: %s\n", input, line, problem);
            code = BAD_INPUT;
            if (line == 1) break;
        }
    }
    if (line == 0) {
        fprintf(stderr, "%s: the file is empty\n", input);
        code = BAD_INPUT;
    }
    free(row);
    fclose(rows);
    if (fclose(prices) != 0 && code == OK) {
        fprintf(stderr, "%s: cannot write: %s\n", output, strerror(errno));
        code = UNWRITABLE;
    }
    if (code != OK) remove(output);
    return code;
}

/* Copy the text of a key of the line into `text`; returns 0 if the key is missing or its text does not fit.
 *
 * A quote inside of a JSON text is escaped, so `"key": "` can only be the key itself. Non-ASCII text is not escaped. */
static int text_of(const char *line, const char *key, char *text, size_t size) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, "\"%s\": \"", key);
    const char *from = strstr(line, wanted);
    if (from == NULL) return 0;
    size_t length = 0;
    for (from += strlen(wanted); *from != '"' && *from != '\0'; from++) {
        if (*from == '\\' && (from[1] == '"' || from[1] == '\\'))
            from++;
        else if (*from == '\\')
            return 0; /* a control character, which paths of the grid do not have */
        if (length + 1 >= size) return 0;
        text[length++] = *from;
    }
    text[length] = '\0';
    return *from == '"';
}

static int price_job(const char *line) {
    char input[PATH_SIZE], output[PATH_SIZE];
    static const char name[] = "/prices.csv";
    if (!text_of(line, "input", input, sizeof input) ||
        !text_of(line, "output_dir", output, sizeof output - sizeof name)) {
        fprintf(stderr, "cannot read this job: %s", line);
        return BAD_INPUT;
    }
    return price_file(input, strcat(output, name));
}

static int serve(void) {
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) != -1) {
        const char *at = strstr(line, "\"number\": ");
        long serial = at != NULL ? strtol(at + strlen("\"number\": "), NULL, 10) : 0;
        int code = price_job(line);
        fflush(stderr);
        printf("{\"number\": %ld, \"exit_code\": %d}\n", serial, code);
        fflush(stdout);
    }
    free(line);
    return OK;
}

int main(int count, char *words[]) {
    if (getenv("RAYGRID_WARM") != NULL) return serve();
    if (count != 2) {
        fprintf(stderr, "usage: %s INPUT.csv\n", words[0]);
        return BAD_INPUT;
    }
    return price_file(words[1], "prices.csv");
}
