# SPDX-License-Identifier: MIT
# Tests the storyteller's recipe, with one step on a page of lines in the place of stories:
# cmake -D PROGRAM=train_storyteller -D OUT=FOLDER -D TEXT=FILE -P train_test.cmake

execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE out ERROR_VARIABLE err RESULT_VARIABLE status)
if(NOT status STREQUAL "2" OR NOT err MATCHES "^usage: train_storyteller ")
  message(SEND_ERROR "without arguments: status ${status}: ${err}")
endif()
file(REMOVE_RECURSE ${OUT})
file(MAKE_DIRECTORY ${OUT})
execute_process(COMMAND ${PROGRAM} 1 ${OUT} ${TEXT} OUTPUT_VARIABLE out ERROR_VARIABLE err
                RESULT_VARIABLE status)
if(NOT status STREQUAL "0" OR NOT out MATCHES
   "stories, .*step 1: 7\\.[0-9]* nats.*held out: ([0-9])\\.[0-9]* bits per byte, in 4 bits ([0-9])\\.")
  message(FATAL_ERROR "status ${status}: ${out}${err}")
endif()
# As many weights as the storyteller has.
file(SIZE ${OUT}/story.bin size)
file(SIZE ${CMAKE_CURRENT_LIST_DIR}/story.bin expected)
if(NOT size EQUAL expected)
  message(SEND_ERROR "story.bin has ${size} bytes, not ${expected}")
endif()
