// SPDX-License-Identifier: MIT
// llama2.c's side of a comparison: its own forward pass in a loop, greedy, after one start token.
// Compiled with -DRUN_C="\"path/run.c\""; started as llama2c_side CHECKPOINT TOKENS START.

#define TESTING
#include RUN_C

static double seconds_of(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int count, char** argument) {
  if (count != 4) return fprintf(stderr, "usage: llama2c_side CHECKPOINT TOKENS START\n"), 2;
  Transformer model;
  build_transformer(&model, argument[1]);
  const int tokens = atoi(argument[2]), start = atoi(argument[3]);
  double seconds = 0;
  for (int turn = 0; turn == 0 || scanf("%lf", &seconds) == 1; ++turn) {
    const double end = seconds_of(CLOCK_MONOTONIC) + seconds;
    static double ms[1000000], cpu_ms[1000000];
    int runs = 0;
    printf(turn == 0 ? "{\"check\": [" : "{");
    do {
      const double from = seconds_of(CLOCK_MONOTONIC), cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
      for (int i = 0, token = start; i < tokens; ++i) {
        token = sample_argmax(forward(&model, token, i), model.config.vocab_size);
        if (turn == 0) printf("%s%d", i == 0 ? "" : ", ", token);
      }
      ms[runs] = 1e3 * (seconds_of(CLOCK_MONOTONIC) - from);
      cpu_ms[runs++] = 1e3 * (seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    } while (turn > 0 && runs < 1000000 && seconds_of(CLOCK_MONOTONIC) < end);
    if (turn > 0) {
      for (int i = 0; i < runs; ++i) printf(i == 0 ? "\"ms\": [%.9g" : ", %.9g", ms[i]);
      for (int i = 0; i < runs; ++i) printf(i == 0 ? "], \"cpu_ms\": [%.9g" : ", %.9g", cpu_ms[i]);
    }
    puts("]}");
    fflush(stdout);
  }
}
