# SPDX-License-Identifier: MIT
# Tests the storyteller's recipe, with one step on copies of the recorded story:
# cmake -D PROGRAM=train_storyteller -D OUT=FOLDER -P train_test.cmake

foreach(arguments "" "many;${OUT};text.txt" "-1;${OUT};text.txt")
  execute_process(COMMAND ${PROGRAM} ${arguments} OUTPUT_VARIABLE out ERROR_VARIABLE err
                  RESULT_VARIABLE status)
  if(NOT status STREQUAL "2" OR NOT err MATCHES "^usage: train_storyteller ")
    message(SEND_ERROR "\"${arguments}\": status ${status}: ${err}")
  endif()
endforeach()
file(REMOVE_RECURSE ${OUT})
file(MAKE_DIRECTORY ${OUT})
file(READ ${CMAKE_CURRENT_LIST_DIR}/story.txt story)
string(REPEAT "${story}" 128 stories)
file(WRITE ${OUT}/stories.txt "${stories}")
execute_process(COMMAND ${PROGRAM} 1 ${OUT} ${OUT}/stories.txt OUTPUT_VARIABLE out
                ERROR_VARIABLE err RESULT_VARIABLE status)
if(NOT status STREQUAL "0" OR NOT out MATCHES
   "stories, .*step 1: 7\\.[0-9]* nats.*held out: [0-9]\\.[0-9]* bits per byte, in 4 bits [0-9]\\.")
  message(FATAL_ERROR "status ${status}: ${out}${err}")
endif()
# As many weights as the storyteller has.
file(SIZE ${OUT}/story.bin size)
file(SIZE ${CMAKE_CURRENT_LIST_DIR}/story.bin expected)
if(NOT size EQUAL expected)
  message(SEND_ERROR "story.bin has ${size} bytes, not ${expected}")
endif()
