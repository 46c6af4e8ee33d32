// SPDX-License-Identifier: MIT
// The program tests/consumers/main.cpp several times in one, its main function renamed and each
// compiled with different flags: all must compute the right results.

int count_portable();
int count_native();
int count_debug();
int count_fast_math();

int main() { return count_portable() + count_native() + count_debug() + count_fast_math(); }
