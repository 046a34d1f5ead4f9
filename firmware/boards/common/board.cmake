# firmware_elf(SOURCES sources... BLOB_BYTES n): the bare-metal image of a board, from its own sources, its linker script
# board.ld and a blob of n bytes.
function(firmware_elf)
  cmake_parse_arguments(PARSE_ARGV 0 board "" "BLOB_BYTES" "SOURCES")
  set(common "${CMAKE_SOURCE_DIR}/boards/common")
  set(blob "${CMAKE_BINARY_DIR}/generated/blob.bin")
  add_custom_command(
    OUTPUT "${blob}"
    COMMAND "${Python3_EXECUTABLE}" "${CMAKE_SOURCE_DIR}/cmake/make_blob.py" --output "${blob}"
            --seed ${blob_seed} --bytes ${board_BLOB_BYTES} ${blob_segments}
    DEPENDS "${CMAKE_SOURCE_DIR}/cmake/make_blob.py"
    COMMENT "Drawing the blob of frozen weights"
    VERBATIM)
  set_source_files_properties("${common}/blob.S" PROPERTIES OBJECT_DEPENDS "${blob}")

  add_executable(firmware ${board_SOURCES} "${common}/startup.c" "${common}/flight_recorder.c"
                          "${common}/blob.S")
  target_compile_definitions(firmware PRIVATE
    BOARD_NAME="${BOARD_NAME}" BLOB_FILE="${blob}")
  target_include_directories(firmware PRIVATE "${common}")
  target_link_libraries(firmware PRIVATE link)
  # No start-up code but ours. newlib gives memcpy, memset and libm; nothing of it may want an operating system.
  target_link_options(firmware PRIVATE
    -nostartfiles --specs=nano.specs "-T${CMAKE_CURRENT_SOURCE_DIR}/board.ld" "-L${common}"
    "-Wl,-Map=${CMAKE_BINARY_DIR}/firmware.map" -Wl,--no-warn-rwx-segments -Wl,--fatal-warnings)
  set_target_properties(firmware PROPERTIES
    SUFFIX ".elf" RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}"
    LINK_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/board.ld;${common}/sections.ld")
endfunction()
