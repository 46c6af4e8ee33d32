// SPDX-License-Identifier: MIT
// The program tests/consumers/main.cpp several times in one, its main function renamed and each
// compiled with different flags: all must compute the right results.

int count_portable(int, char**);
int count_native(int, char**);
int count_debug(int, char**);
int count_fast_math(int, char**);

int main(int n, char** words) {
  return count_portable(n, words) + count_native(n, words) + count_debug(n, words) +
         count_fast_math(n, words);
}
